"""Old import path and old names of `trimtab.passes.rewrites`, kept for code that uses them."""

from .rewrites import find_rewrite_rule, rewrite_rules
from .rewrites.rule import Found, RewriteRule, Writer, rewrite_rule

Form, form = RewriteRule, rewrite_rule
forms, find_form = rewrite_rules, find_rewrite_rule

__all__ = ["Form", "Found", "Writer", "find_form", "form", "forms"]
