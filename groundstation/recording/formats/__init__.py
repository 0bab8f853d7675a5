"""Foreign files of tags: one module for each family, all of them read and written block by block.

`tag_file` is what every module makes of a file; `registry` knows all formats and recognises a file by its
content. A file that is read may be handed to the writer of another format as it is.
"""
