"""What no other room owns: terminal output, files, HTML pages, errors, redaction, the version."""
