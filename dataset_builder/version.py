"""The version of the generator, which the data carries.

The patch number counts changes of the files that leave every row alone, the minor number new columns, the major
number changed rows. Only the major number enters the random stream.
"""

GENERATOR_VERSION = "1.0.0"
