"""The paper's tables as studies: from a declared study to finished runs to a table."""
