"""How the embedded models came about; no part of the installed package."""
