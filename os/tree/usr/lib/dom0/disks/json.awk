# Files of `key=value` lines to the document that docs/disk.md describes. The arguments are kind=data, kind=problems or
# kind=device before the files that are of this kind. Every value is a text, but those named here.
function text(value) {
    gsub(/[\\"]/, "\\\\&", value)
    gsub(/[\001-\037\177]/, "?", value)
    return "\"" value "\""
}
function member(key, value) {
    if (key in is_flag) return text(key) ":" (value == "1" ? "true" : "false")
    if (key in is_number && value ~ /^[0-9]+$/) return text(key) ":" value
    return text(key) ":" text(value)
}
BEGIN {
    split("bytes store_containers store_images store_bytes", words, " ")
    for (i in words) is_number[words[i]] = 1
    split("removable partition blank half_made please_format", words, " ")
    for (i in words) is_flag[words[i]] = 1
}
kind == "device" && FNR == 1 { devices = devices (devices == "" ? "{" : "},{"); comma = "" }
{
    cut = index($0, "=")
    key = substr($0, 1, cut - 1); value = substr($0, cut + 1)
    if (!cut) next
    if (kind == "data") {
        data = data (data == "" ? "" : ",") member(key, value)
    } else if (kind == "problems") {
        problems = problems (problems == "" ? "" : ",") "{\"code\":" text(key) ",\"text\":" text(value) "}"
    } else {
        devices = devices comma member(key, value); comma = ","
    }
}
END {
    print "{\"data\":{" data "},\"problems\":[" problems "],\"devices\":[" (devices == "" ? "" : devices "}") "]}"
}
