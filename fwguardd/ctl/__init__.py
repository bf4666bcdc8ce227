"""fwguardctl, a file for each group of verbs."""
