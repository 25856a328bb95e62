"""`minga://` for fsspec, and with it for pandas, pyarrow, zarr, Dask, DuckDB and whatever else opens URLs with it.

fsspec finds it by itself once `minga[fsspec]` is installed::

    import pandas

    table = pandas.read_csv("minga://data/table.csv")

Nothing else of `minga` imports this, or fsspec.
"""

from minga.filesystem.system import MingaFileSystem

__all__ = ["MingaFileSystem"]
