"""Whole histories of the product on simulated racks, and the auditor that judges them."""
