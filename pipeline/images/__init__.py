"""images: what `zone image` does, on references and on what the store has. No zone, no root; network by way of fetch.

names    what an image is called in the store, and what a user may have meant
pull     a reference into the store, under a name; names taken away again
listing  every name of the store
inspect  an image's documents; a file that `pack` made
verify   every object of an image, hashed again
diff     what changed between two images, by path
"""
