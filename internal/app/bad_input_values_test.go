package app_test

import (
	"strings"
)

// goodKey is a key as clients should send it.
const goodKey = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e5f"

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// badValues stand in a URL for an id, a number or a word, escaped as they are
// sent. net/http takes all of them for well-formed.
func badValues(id string) []string {
	return []string{
		".", "..", "...", "%2e", "%2e%2e", "%2E%2E%2F%2E%2E", "..%2f..%2f..%2fetc%2fpasswd", "..%5c..%5cwindows", "%2F", "%2F%2F", "%5c",
		"%00", "a%00b", id + "%00", "%00" + id, "%0d%0aX-Evil:%20yes", "%0a", "%1b%5b31m", "%7f", "%c2%85",
		id + "%20", "%20" + id, strings.ToUpper(id), "%7B" + id + "%7D", strings.ReplaceAll(id, "-", ""), id + "0", id[:35], id + id, "urn:uuid:" + id,
		"0", "-0", "00", "01", "-1", "+1", "%2B1", "1.0", "1.5", "1e3", "1e400", "-1e400", "0x1", "1_000", "1%2C000", "%D9%A1", "%EF%BC%91",
		"2147483648", "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
		"18446744073709551616", repeat("9", 400), "NaN", "Inf", "-Infinity", "null", "true", "undefined", "None",
		"[]", "%5B%5D", "{}", "%7B%7D", "'", "%22", "'%20OR%20'1'='1", "1%20OR%201=1", "%27%3B%20DROP%20TABLE%20worker_projects--", "$1", "%24%7Bjndi:x%7D",
		"%25", "%2500", "%252e%252e", "%ff", "%ff%fe", "%c0%af", "%c0%80", "%ed%a0%80", "%ed%b0%80", "%f4%90%80%80", "%e2%82", "%80",
		"%E2%80%AE", "%E2%80%A8", "%EF%BB%BF", "%EF%BF%BE", "%F0%9F%A6%84", "%C3%A9", "e%CC%81", "%CE%91%CC%81%CD%85", "\xc3\xa9", "\xf0\x9f\xa6\x84",
		"*", "~root", ":", "@", "%40", ";", ";a=b", "a;b", "..;", "%3B", "(", "a%3Fb", "a%23b", "$(id)", "%60id%60", "%3Cscript%3E", "<script>",
		"-", "_", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "none:" + id,
		repeat("a", 300), repeat("a", 8000), repeat("%41", 3000), repeat("%00", 3000), repeat("%F0%9F%A6%84", 500), repeat("..%2f", 2000),
	}
}

// brokenValues stand in a URL too, and make it one that net/http may refuse.
func brokenValues() []string {
	return []string{"%", "%zz", "%u0000", "%0", "a b", " ", "a\tb", "a\x00b", "\x01", "\x7f", "#", "\xff\xfe", "\xc0\xaf", repeat("a", 40_000)}
}

// keyValues stand in a header as an Idempotency-Key or a cursor.
func keyValues() []string {
	good := goodKey
	return []string{
		"", " ", good, `"` + good + `"`, `"` + good, good + `"`, `'` + good + `'`, `""`, `"`, `"""`, `"\"`, `"` + good + `";a=1`, `"` + good + `" ; q`,
		good + ", " + good, `"` + good + `", "` + good + `"`, good + " " + good, `"` + good + ` ` + good + `"`, `"abc\"def-0123456789"`, `"abc\\def-0123456789"`,
		"short", repeat("k", 15), repeat("k", 16), repeat("k", 128), repeat("k", 129), `"` + repeat("k", 15) + `"`, `"` + repeat("k", 129) + `"`,
		":Z29vZGtleWdvb2RrZXk=:", "::", "?1", "?0", "1", "-1", "0", "-0", "+1", "1.5", "1e400", repeat("9", 400), "9223372036854775807", "9223372036854775808",
		"null", "true", "{}", "[]", "()", "(\"a\")", "*", "%00%00%00%00%00%00%00%00", "../../../../etc/passwd", "$1$1$1$1$1$1$1$1", "'; DROP TABLE x; --",
		"<script>alert(1)</script>", "${jndi:ldap://x/y}", "kéy-kéy-kéy-kéy-kéy", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\xc3\x28aaaaaaaaaaaaaaaa", "\xed\xa0\x80aaaaaaaaaaaaaaaa",
		"🦄🦄🦄🦄", "\u202eaaaaaaaaaaaaaaaaaa", "aaaaaaaa\taaaaaaaaaa", "@1700000000", "%\"f%c3%bc%c3%bc\"", "none:" + good, "a_b.c:d-e_f.g:h-i",
		repeat("k", 8<<10), `"` + repeat("k", 8<<10) + `"`, repeat("k", 10<<10), repeat(`"`, 1000), repeat("k,", 1000),
	}
}

// headerLines are lines that any request may have.
func headerLines() []string {
	return []string{
		"Content-Type:", "Content-Type: application/json; charset=utf-8", "Content-Type: application/json; charset=latin1", "Content-Type: application/json;;;",
		"Content-Type: text/plain", "Content-Type: text/html", "Content-Type: application/xml", "Content-Type: application/cbor", "Content-Type: application/x-www-form-urlencoded",
		"Content-Type: multipart/form-data", "Content-Type: multipart/form-data; boundary=x", "Content-Type: application/problem+json", "Content-Type: application/vnd.api+json",
		"Content-Type: application/json, text/plain", "Content-Type: APPLICATION/JSON", "Content-Type: json", "Content-Type: /", "Content-Type: */*", "Content-Type: +json", "Content-Type: a/+json",
		"Content-Type: \xff\xfe", "Content-Type: ;", "Content-Type: " + repeat("a", 8000),
		"Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding: identity", "Content-Encoding: gzip, gzip", "Content-Encoding: x", "Content-Encoding: deflate",
		"Accept:", "Accept: text/html", "Accept: application/xml", "Accept: application/cbor", "Accept: image/png;q=0", "Accept: */*;q=0", "Accept: " + repeat("a/b,", 2000), "Accept: \xff", "Accept: ;;;,,,",
		"Accept: application/json;q=1e400", "Accept-Encoding: gzip;q=-1", "Accept-Encoding: *;q=0", "Accept-Language: \xff", "Accept-Charset: utf-16",
		"X-Request-Id:", "X-Request-Id: a b", "X-Request-Id: <script>", "X-Request-Id: \xff\xff", "X-Request-Id: " + repeat("x", 129), "X-Request-Id: " + repeat("x", 8000), "X-Request-Id: ../../x", "X-Request-Id: %0d%0a",
		"traceparent: " + repeat("<", 55), "traceparent: " + repeat("\xff", 55), "traceparent: x", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate: " + repeat("a=b,", 1000), "baggage: " + repeat("a=b,", 1000),
		"Range: bytes=0-0", "Range: bytes=-1", "Range: bytes=" + repeat("0-0,", 1000), "Range: bytes=9223372036854775808-", "If-None-Match: *", "If-Match: *", "If-Modified-Since: yesterday", "If-Range: \"x\"",
		"Cookie: " + repeat("a=b; ", 1000), "Cookie: \xff", "Referer: javascript:x", "Origin: null", "Origin: http://evil.example", "User-Agent:", "User-Agent: " + repeat("x", 8000),
		"X-HTTP-Method-Override: DELETE", "X-Method-Override: PUT", "X-Original-URL: /v1/projects", "X-Rewrite-URL: /", "X-Forwarded-For: 127.0.0.1, \xff", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: gopher", "Forwarded: for=\"_x", "X-Real-Ip: ::1",
		"Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "Connection: keep-alive", "Connection: Authorization", "Keep-Alive: timeout=99999999", "Proxy-Authorization: Basic x", "Proxy-Connection: close", "TE: trailers, deflate",
		"Trailer: Authorization", "Trailer: Content-Length", "Max-Forwards: -1", "Priority: u=99", "Early-Data: 1", "Service-Worker: script", "Sec-Fetch-Mode: \xff", "Via: 1.1 " + repeat("x", 4000), "Warning: 299", "Expect: 100-continue",
		"Idempotency_Key: " + goodKey, "X-A: " + repeat("a", 16<<10), repeat("X-B: b\r\n", 300) + "X-C: c", "Last-Event-ID: " + repeat("9", 8000), "Content-Length_: 5", "Content-MD5: x", "Digest: sha-256=x",
		"Pragma: no-cache", "Cache-Control: max-age=-1", "Cache-Control: only-if-cached", "Date: now", "From: \"x\"@y", "Prefer: respond-async, wait=9999999", "Depth: infinity", "Destination: /etc/passwd", "Overwrite: T",
	}
}

// brokenLines make a request that net/http may refuse.
func brokenLines() []string {
	return []string{
		"Expect: 200-maybe", "Expect:", "X A: b", "X-A : b", " X-A: b", ": b", "X-A", "X-A: a\x00b", "X-A: a\x0bb", "X-A: a\x7fb", "X-A: a\rb", "X-A: a\r\n folded", "X-\xff: b", "X-\x00: b", "(X): b",
		"Host: other.example", "Host: " + repeat("h", 9000), "Content-Length: 5\r\nContent-Length: 6", "Content-Length: -1", "Content-Length: +5", "Content-Length: 0x5", "Content-Length: 5,5", "Content-Length:",
		"Content-Length: 99999999999999999999999", "Content-Length: 1e1", "Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding: \x0bchunked", "Transfer-Encoding:\tx", "Transfer-Encoding : chunked", "X-A: " + repeat("a", 40_000), repeat("X-B: b\r\n", 8000) + "X-C: c",
		"Cookie: " + repeat("a=b; ", 9000), "Idempotency-Key: a\x00b", "Authorization: Bearer \x00", "Content-Type: application/json\x00",
	}
}

// authLines stand in the place of the Authorization line.
func authLines(token string) []string {
	return []string{
		"", "Authorization:", "Authorization: ", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer nope", "Authorization: bearer " + token, "Authorization: BEARER " + token,
		"Authorization: Bearer  " + token, "Authorization: Bearer\t" + token, "Authorization: " + token, "Authorization: Basic " + token, "Authorization: Bearer " + token + "x", "Authorization: Bearer " + token[1:], "Authorization: Bearer " + token + " x",
		"Authorization: Bearer " + token + ",Bearer " + token, "Authorization: Bearer \"" + token + "\"", "Authorization: Bearer %00", "Authorization: Bearer " + repeat("x", 10<<10), "Authorization: Bearer \xff\xfe", "Authorization: Bearer null", "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.",
		"Authorization: Bearer nope\r\nAuthorization: Bearer " + token, "Authorization: Bearer " + token + "\r\nAuthorization: Bearer nope", "X-Authorization: Bearer " + token, "Authorization: Digest username=\"x\"", "Cookie: token=" + token,
	}
}

// badMethods are the methods that every path gets; those after the bar make a
// request that net/http may refuse.
const badMethods = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND M-SEARCH get Get POSTX QUERY PRI X CONNECT"

func brokenMethods() []string {
	return []string{"", "GET/", "GE T", "G\x00T", "{}", "GET\t", "\xff", repeat("A", 33_000)}
}

// badProtocols stand in the place of HTTP/1.1.
var badProtocols = []string{"HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3", "http/1.1", "HTTP/1.1 x", "HTTP/", "HTTP/1.1\x00", "HTCPCP/1.0", "HTTP/-1.1", "HTTP/1.10", ""}

// hostLines stand in the place of the Host line.
var hostLines = []string{
	"", "Host:", "Host: a\r\nHost: b", "Host: ..", "Host: a b", "Host: \xff", "Host: a\x00b", "Host: [::1", "Host: [::1]:x", "Host: a:99999999", "Host: <script>", "Host: a/b", "Host: user@a", "Host: preview.localhost", "Host: evil.example",
	"Host: " + repeat("a.", 4000),
}
