package app_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strconv"
)

const tenMB = 10 << 20

// badJSON are values for a field: JSON that is of a wrong type, extreme, or no
// JSON at all.
func badJSON() []string { return append(shortJSON(), long...) }

func shortJSON() []string {
	return []string{
		"null", "true", "false", "0", "-0", "-0.0", "1", "-1", "1.5", "1e3", "1e400", "-1e400", "1e-400", "1E+2147483648", repeat("9", 400), "0." + repeat("9", 400), "9007199254740993", "9223372036854775808",
		`""`, `" "`, `"\t"`, `"\n"`, `"x"`, `"a\u0000b"`, `"\u0000"`, `"\u001b[31m"`, `"\u007f"`, `"\u0085"`, `"\ud800"`, `"\udc00"`, `"\ud800\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\uD800x"`, `"\uFFFE\uFFFF"`,
		`"\u202eabc"`, `"\u2028\u2029"`, `"\ufeff"`, `"e\u0301"`, `"🦄"`, `"'; DROP TABLE worker_projects; --"`, `"$1"`, `"%s%n%x"`, `"{{.}}"`, `"../../etc/passwd"`, `"<script>alert(1)</script>"`, `"${jndi:ldap://x}"`, `"__proto__"`,
		"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"a\x00b\"", "\"a\nb\"", "\"a\tb\"", "\"\x1b\"", `"\x41"`, `"\u12"`, `"\u{41}"`, `"\a"`, `"\`, `"`, `'x'`,
		"[]", "[null]", "[1,2]", `["x"]`, "[[]]", "{}", `{"":""}`, `{"a":1}`, `{"a":null}`, `{"a":{"b":{"c":[]}}}`, `{"a":1,"a":2}`, `{"a":"1","a":"2"}`, `{"a":1,"\u0061":2}`, `{"__proto__":{"x":1}}`, `{"constructor":{"prototype":1}}`, `{"$ref":"#"}`,
		"{\"\xff\":1}", `{"\u0000":1}`, `{"\ud800":1}`, `{"a"}`, `{"a":}`, `{a:1}`, `{,}`, `[,]`, `[1,]`, `{"a":1,}`, "NaN", "Infinity", "-Infinity", "undefined", "True", "nul", "tru", "+1", ".5", "1.", "01", "0x10", "1_000", "- 1", "--1", "1e", "// x\n1", "/* x */1", "",
		`{"content":"x","encoding":"rot13"}`, `{"content":"!!","encoding":"base64"}`, `{"content":null}`, `{"content":1}`, `{"content":"x","encoding":null}`, `{"content":{"content":"x"}}`, `{"encoding":"base64"}`, `{"content":"\ud800"}`, `{"content":"\u0000"}`, `{"content":"x","Content":"y"}`, `{"content":"x","content":"y"}`,
	}
}

// long are values that are too long or nest too deeply, but quick to read.
var long = []string{
	`"` + repeat("a", 129) + `"`, `"` + repeat("é", 70) + `"`, `"` + repeat("a", 33<<10) + `"`, `"` + repeat(`\u0000`, 3000) + `"`, `"` + repeat("🦄", 9000) + `"`, `"` + repeat(`\ud83e\udd84`, 9000) + `"`,
	repeat("[", 10_000) + repeat("]", 10_000), repeat("[", 10_000), repeat(`{"a":`, 10_000) + "1" + repeat("}", 10_000), repeat(`{"a":`, 10_000), repeat(`[{"a":`, 5000) + "1" + repeat("}]", 5000),
	repeat("[", 64) + repeat("]", 64), repeat(`{"a":`, 900) + "1" + repeat("}", 900), "[" + repeat("0,", 50_000) + "0]", repeat(`{"a":{},"b":`, 3000) + "1" + repeat("}", 3000), repeat("9", 100_000), "1e" + repeat("9", 1000), repeat(" ", 100_000) + "1",
}

// tenMBValues are the values of ten megabytes.
func tenMBValues() []string {
	return []string{
		`"` + repeat("a", tenMB) + `"`, `"` + repeat(`\u0000`, tenMB/6) + `"`, repeat(" ", tenMB) + "1", repeat("9", tenMB), repeat("[", tenMB/2) + repeat("]", tenMB/2),
	}
}

// manyNames is an object of very many members.
func manyNames(n int) string {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"n%d":"",`, i)
	}
	b.WriteString(`"z":""}`)
	return b.String()
}

// badPaths are names of files, as JSON strings.
func badPaths() []string {
	return []string{
		`""`, `"."`, `".."`, `"/"`, `"//"`, `"/etc/passwd"`, `"../x"`, `"a/../../x"`, `"a/./b"`, `"./a"`, `"a//b"`, `"a/"`, `"a\\b"`, `"..\\x"`, `"a\\..\\b"`, `"C:/x"`, `"C:x"`, `"\\\\?\\C:\\x"`, `"a:b"`, `"a\u0000b"`, `"a\u0000/../b"`, `"a\nb"`, `"a\u001bb"`, `"a\u007fb"`, `"a\u0085b"`,
		`"con"`, `"CON.txt"`, `"x/NUL"`, `"com1.js"`, `"lpt0"`, `"aux/x"`, `"a."`, `"a "`, `"a./x"`, `" a"`, `"a?"`, `"a*"`, `"a\""`, `"a<b"`, `"a|b"`, `"e\u0301"`, `"\u212b"`, `"\ufb01"`, `"\u202ea"`, `"\u2028"`, `"\ufeffa"`, `"\u200d"`, `"\ud800"`, "\"\xff\"", "\"\xc0\xae\xc0\xae/x\"",
		`"%2e%2e/x"`, `"..%2fx"`, `"~/x"`, `"~root"`, `"-rf"`, `"--version"`, `"$HOME/x"`, `"a;rm -rf"`, "\"`id`\"", `".git/config"`, `".env"`, `".htaccess"`, `"node_modules/x/index.js"`, `"previewd.json"`, `"package.json"`, `"tsconfig.json"`, `"_redirects"`, `"__proto__"`, `"PaxHeader/x"`, `"a=b"`, `"12 path=../x"`,
		`"` + repeat("a", 255) + `"`, `"` + repeat("a", 256) + `"`, `"` + repeat("é", 128) + `"`, `"` + repeat("a/", 31) + `x"`, `"` + repeat("a/", 33) + `x"`, `"` + repeat("a/", 600) + `x"`, `"` + repeat("../", 1000) + `x"`, `"` + repeat("a", 100_000) + `"`, `"` + repeat("/", 5000) + `"`,
	}
}

// badTrees are values for templateFiles.
func badTrees() []string {
	list := []string{
		`{"a.txt":"1","a.txt":"2"}`, `{"a.txt":"1","A.TXT":"2"}`, `{"a":"1","a/b":"2"}`, `{"x/y":"","X/y/z":""}`, `{"stra\u00dfe":"","STRASSE":""}`, `{"\u00e9":"","\u00c9":""}`, `{"\u1fb3":"","\u03b1\u03b9":""}`, `{"\u212a":"","k":""}`, `{"\u0130":"","i\u0307":""}`, `{"\u017f":"","s":""}`,
		manyNames(10_001), manyNames(9_000),
	}
	for _, path := range badPaths() {
		list = append(list, `{`+path+`:"x"}`, `{"index.html":"x",`+path+`:{"a":1}}`)
	}
	for _, value := range shortJSON() {
		list = append(list, `{"a.txt":`+value+`}`, `{"a.json":`+value+`}`)
	}
	return list
}

// badMetadata are values for metadata.
func badMetadata() []string {
	list := []string{
		`{"build":{"env":{"PATH":"/"}}}`, `{"build":{"env":{"VITE_":"x"}}}`, `{"build":{"env":{"VITE_A B":"x"}}}`, `{"build":{"env":{"VITE_A=B":"x"}}}`, `{"build":{"env":{"":"x"}}}`, `{"build":{"env":{"VITE_A\u0000":"x"}}}`,
		`{"Template":"landing"}`, `{"TEMPLATE":"landing","template":1}`, `{"template":"landing\u0000"}`, `{"template":"../landing"}`, `{"template":"landing","template":"app"}`, `{"x":"` + repeat("m", 16<<10) + `"}`, `{"x":"` + repeat(`\u0000`, 2000) + `"}`,
		manyNames(1000), manyNames(10_000),
	}
	for _, value := range shortJSON() {
		list = append(list, `{"template":`+value+`}`, `{"x":`+value+`}`, `{"build":`+value+`}`, `{"build":{"env":`+value+`}}`, `{"build":{"env":{"VITE_A":`+value+`}}}`)
	}
	return list
}

// badBodies are whole bodies, for every endpoint. good is one that works.
func badBodies(good string) []string {
	return append([]string{
		"", " ", "\r\n\r\n", "\x00", "\xef\xbb\xbf" + good, "\xff\xfe{\x00}\x00", "\x00\x00\x00{", good + good, good + "x", good + "\x00", good + ",", "[" + good + "]", good[:len(good)/2], good[:len(good)-1], "\x1f\x8b" + good, gzipOf(good), gzipOf(gzipOf(good)), gzipOf(repeat("a", 1<<20)),
		"\x00" + good, "\n" + good, good + "\n\n", repeat("{", 5), "}", "]", ")]}',\n" + good, "/**/" + good, "userId=u&prompt=p", "--x\r\nContent-Disposition: form-data; name=\"userId\"\r\n\r\nu\r\n--x--\r\n", "<?xml version=\"1.0\"?><userId>u</userId>", "<!DOCTYPE x [<!ENTITY y SYSTEM \"file:///etc/passwd\">]>", "---\nuserId: u\n", "\xa1fuserIdau",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "0\r\n\r\nGET / HTTP/1.1\r\n\r\n", `{"userId":"u","ownerId":"x"}`, `{"UserID":"u"}`, `{"userid":"u","userId":"u"}`, `{"userId ":"u"}`, `{"user\u0049d":"u","userId":"v"}`, `{"userId":"u","userId":"u"}`, `{"":1}`, `{"__proto__":{"userId":"u"}}`, `{"$schema":"x"}`,
		manyNames(1000), manyNames(50_000), "{" + repeat(`"userId":"u",`, 1000) + `"userId":"u"}`, good[:len(good)-1] + `,"x":` + repeat("[", 10_000) + repeat("]", 10_000) + "}", good[:len(good)-1] + `,"x":1}`, good[:len(good)-1] + `,"x":1e400}`, good[:len(good)-1] + `,"x":"\ud800"}`,
	}, badJSON()...)
}

func gzipOf(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

// framing is a body as it goes over the wire, with the lines that frame it.
type framing struct {
	lines, body string
	cut         bool // nothing comes after it: the client stops sending
	broken      bool // net/http may refuse it
}

// badFramings send a body in unusual ways, and in ways that are wrong.
func badFramings(good string) []framing {
	size := fmt.Sprintf("%x", len(good))
	chunk := size + "\r\n" + good + "\r\n"
	const chunked = "Transfer-Encoding: chunked"
	return []framing{
		{lines: chunked, body: chunk + "0\r\n\r\n"}, {lines: chunked, body: size + ";ext=1;q=\"a\"\r\n" + good + "\r\n0;last\r\n\r\n"}, {lines: chunked, body: size + ";" + repeat("x", 3000) + "\r\n" + good + "\r\n0\r\n\r\n"},
		{lines: chunked, body: size + " \r\n" + good + "\r\n0\r\n\r\n"}, {lines: chunked, body: "0000" + chunk + "0000\r\n\r\n"}, {lines: chunked, body: chunk + "0\r\nX-Trailer: 1\r\n\r\n"}, {lines: chunked + "\r\nTrailer: Authorization", body: chunk + "0\r\nAuthorization: x\r\n\r\n"},
		{lines: chunked, body: bytewise(good)}, {lines: chunked, body: "0\r\n\r\n"}, {lines: "Transfer-Encoding: CHUNKED", body: chunk + "0\r\n\r\n"},
		{lines: chunked, body: chunk, cut: true}, {lines: chunked, body: size + "\r\n" + good[:len(good)/2], cut: true}, {lines: chunked, body: size, cut: true}, {lines: chunked, body: "", cut: true}, {lines: chunked, body: "zz\r\n" + good + "\r\n0\r\n\r\n"},
		{lines: chunked, body: "-1\r\n" + good + "\r\n0\r\n\r\n"}, {lines: chunked, body: "0x5\r\n" + good + "\r\n0\r\n\r\n"}, {lines: chunked, body: "ffffffffffffffff\r\n" + good, cut: true}, {lines: chunked, body: "fffffffffffffffff\r\n" + good}, {lines: chunked, body: "7fffffffffffffff\r\n" + good, cut: true},
		{lines: chunked, body: size + "\n" + good + "\n0\n\n"}, {lines: chunked, body: size + "\r\n" + good + "xx0\r\n\r\n"}, {lines: chunked, body: "1\r\n" + good + "\r\n0\r\n\r\n"}, {lines: chunked, body: "\r\n" + chunk + "0\r\n\r\n"}, {lines: chunked, body: good, cut: true}, {lines: chunked, body: "\x00\r\n\r\n"},
		{lines: chunked, body: repeat("0", 5000) + "\r\n\r\n"}, {lines: chunked, body: size + ";" + repeat("x", 100_000) + "\r\n" + good + "\r\n0\r\n\r\n"}, {lines: chunked, body: repeat("1;"+repeat("x", 200)+"\r\n \r\n", 2000) + "0\r\n\r\n"},
		{lines: chunked, body: chunk + "0\r\n" + repeat("X-T: "+repeat("t", 1000)+"\r\n", 100) + "\r\n"}, {lines: chunked, body: chunk + "0\r\nbad trailer\r\n\r\n"},
		{lines: chunked + "\r\nContent-Length: 3", body: chunk + "0\r\n\r\n", broken: true}, {lines: "Content-Length: 3\r\n" + chunked, body: chunk + "0\r\n\r\n", broken: true},
		{lines: fmt.Sprintf("Content-Length: %d", len(good)+100), body: good, cut: true}, {lines: fmt.Sprintf("Content-Length: %d", len(good)-1), body: good}, {lines: "Content-Length: 0", body: good}, {lines: "", body: good}, {lines: "Content-Length: 9223372036854775807", body: good, cut: true},
		{lines: fmt.Sprintf("Content-Length: %d\r\nContent-Length: %d", len(good), len(good)), body: good, broken: true}, {lines: fmt.Sprintf("Content-Length: 00%d", len(good)), body: good, broken: true}, {lines: "Content-Length: 104857600", body: good, cut: true},
		{lines: fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d", len(good)), body: good}, {lines: "Expect: 100-continue\r\n" + chunked, body: chunk + "0\r\n\r\n"}, {lines: "Content-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(len(gzipOf(good))), body: gzipOf(good)},
	}
}

// bytewise sends each byte as a chunk of its own.
func bytewise(s string) string {
	var b bytes.Buffer
	for i := range len(s) {
		fmt.Fprintf(&b, "1\r\n%c\r\n", s[i])
	}
	return b.String() + "0\r\n\r\n"
}
