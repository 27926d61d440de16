"""What runs in place of a node where a test is about processes, not about the chain."""

STAND_IN = """
import http.server, json, os, sys, threading
port, is_tied = int(sys.argv[1]), sys.argv[2] == "tied"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = json.dumps({"height": 1, "peers": [{"name": "p", "connected": True}]}).encode()
        self.send_response(200); self.send_header("content-length", str(len(data)))
        self.end_headers(); self.wfile.write(data)
    def log_message(self, *_): pass
if is_tied:
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
