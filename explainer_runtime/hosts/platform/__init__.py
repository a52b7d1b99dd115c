"""What KServe and Seldon say: flags, variables, directories; from them to settings of what is served."""
