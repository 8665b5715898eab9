"""What Yjs bytes mean: bytes in, values out, nothing else.

No I/O, no asyncio, no knowledge of rooms or tables. Every byte from a socket passes the strict parsers of this
package before native code sees it; pycrdt is imported nowhere outside it, and only behind a fence.
"""
