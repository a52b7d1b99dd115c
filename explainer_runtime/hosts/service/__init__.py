"""What every host needs and no server knows: settings, admission, what is asked and answered, status."""
