"""The runtime: boots zone bundles on Xen, gives them networking and watches over them."""
