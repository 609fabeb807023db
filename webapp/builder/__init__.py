"""The forms that build, check, save and submit joins."""
