"""Definition of the data: bands, columns, units, flags, contracts, receipts. No I/O, no imports of ours."""
