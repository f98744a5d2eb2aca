"""The migrations, shipped with the package; `migrating` runs them."""
