"""`fluvial dev`: a private platform for one folder, deployed anew whenever the folder changes."""
