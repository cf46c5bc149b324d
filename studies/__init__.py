"""Science about this package, run by rules and recorded: does each base method learn, and where not, why?"""
