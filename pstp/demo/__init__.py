"""`pstp demo`: all flights that left New York in 2013, as tasks of their planes, while processes are killed."""
