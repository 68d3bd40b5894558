"""The private place from which Captum's tutorials import the rules of LRP."""
