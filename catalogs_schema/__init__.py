"""What the data is: bands, columns, units, flags, contracts, receipts. No I/O; imports nothing of ours."""
