"""The business's own records behind Protocols: appointment book, message book; one file per product."""
