"""A dental front desk: appointments, messages, hours and address."""
