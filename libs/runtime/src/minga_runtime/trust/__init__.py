"""Who a process is, who calls it, and what each may do: certificates, grants and rights (docs/adr/0033, 0034)."""
