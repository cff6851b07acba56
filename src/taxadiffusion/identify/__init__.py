"""The generator as a taxonomist: which taxon's condition explains a photograph best, walked down the tree."""
