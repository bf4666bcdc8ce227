"""What fwguardd keeps on disk: revisions, boot files, a pending confirmation, held files."""
