"""pyconv beside torch and onnxruntime, row by row: what ``python -m pyconv bench`` runs.

``layers`` says which rows there are and what each costs, ``problem`` makes their data and knows the
right results, ``engines`` run them, ``measure`` takes the times, ``records`` keeps them in a file,
``report`` makes tables and a summary of it, ``cli`` puts it together.
"""
