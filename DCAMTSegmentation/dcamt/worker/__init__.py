"""What an application and its worker process say to one another: protocol, progress and failures. Imports no torch."""
