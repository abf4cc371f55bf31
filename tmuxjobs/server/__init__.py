"""The MCP server: tools, tasks, resources, notifications; stdio and HTTP.

Talks only to `Jobs`. The only user of fastmcp.
"""
