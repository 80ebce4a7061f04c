"""`python -m consilo` is the command `consilo`."""

from consilo.cli import main

if __name__ == "__main__":
    main()
