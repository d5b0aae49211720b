"""`python -m shoal`: the command line."""

from shoal.commands import main

if __name__ == "__main__":
    main()
