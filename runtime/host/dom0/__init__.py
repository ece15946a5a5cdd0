"""What runs in the lab's dom0 before zoned: kernel modules, xenstored, the network card; and the lab's own methods."""
