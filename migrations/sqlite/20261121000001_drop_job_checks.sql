-- SQLite keeps its checks: they are compiled with the statement, once.
SELECT 1;
