"""Vladymyrov, von Oswald, Sandler, Ge: Linear Transformers are Versatile In-Context Learners (NeurIPS 2024)."""

from innerloop.papers.vladymyrov2024.printed import CONTEXT, DIM, printed_table_1, published, table_1

__all__ = ["CONTEXT", "DIM", "printed_table_1", "published", "table_1"]
