"""What the queries of docs/sql.md must answer, computed without SQL.

world       a small hospital: its index, and the same as plain Python
oddities    what that hospital lacks: things that few archives have and queries look for
answers     the table; by whom it is asked: administrator, stock, researcher, physicist
"""
