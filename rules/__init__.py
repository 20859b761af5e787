"""Rule packs and their evaluation over the fact tables."""
