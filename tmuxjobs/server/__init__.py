"""The MCP server: tools, tasks, resources, notifications; stdio and HTTP.

Talks to `Jobs` alone. The one user of fastmcp.
"""
