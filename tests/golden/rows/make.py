"""Makes arc.parquet: three questions in the layout of the dataset allenai/ai2_arc, as the Hub stores it.

    python tests/golden/rows/make.py        # pyarrow 26; text of this project's own
"""

import pathlib

import pyarrow
import pyarrow.parquet

ROWS = [
    {"id": "q1", "question": "What do bees make?", "choices": {"text": ["honey", "milk", "glass"], "label": ["A", "B", "C"]}, "answerKey": "A"},
    {"id": "q2", "question": "Wie heißt der Fluß?", "choices": {"text": ["Rhein", "東京"], "label": ["1", "2"]}, "answerKey": "1"},
    {"id": "q3", "question": "Seven\nlines?", "choices": {"text": [], "label": []}, "answerKey": ""},
]
pyarrow.parquet.write_table(
    pyarrow.Table.from_pylist(ROWS), pathlib.Path(__file__).with_name("arc.parquet"), compression="snappy"
)
