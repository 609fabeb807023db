"""What a join may say."""
