"""What runs on another host for us, over one ssh, beside the pane's programs. Stdlib only, Python >= 3.8."""
