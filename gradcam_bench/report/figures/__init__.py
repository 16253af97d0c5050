"""Every figure that a run or several allow, in one style."""
