"""What a user may say about a dump of vectors: which of its columns, and which of its tables.

What it does not do: say what a name means in a store; each reader's module does.
"""

from pydantic import BaseModel, ConfigDict


class DumpSettings(BaseModel):
    """Names inside a dump; None leaves the choice to the reader.

    Attributes:
        column: the vectors' column or field; by default `embedding`, else the only one that holds vectors.
        id_column: the ids' column; by default `id` where there is one, else rows are numbered.
        name: which table, collection, index or array, where the store holds several.
        metadata: the other columns to read; None for all of them, an empty list for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str | None = None
    id_column: str | None = None
    name: str | None = None
    metadata: list[str] | None = None
