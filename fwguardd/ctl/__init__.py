"""The command fwguardctl: a module for each group of verbs."""
