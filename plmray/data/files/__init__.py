"""Files of proteins as they are found: FASTA, tables, Excel. Read, not judged."""
