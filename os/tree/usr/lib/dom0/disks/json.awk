# Sections of `key=value` lines to the document docs/disk.md describes. Every value is a string, but those named here.
function text(value) {
    gsub(/[\\"]/, "\\\\&", value)
    gsub(/[\001-\037\177]/, "?", value)
    return "\"" value "\""
}
function end_section() {
    if (section == "device" || section == "data") printf "}"
    if (section == "problems") printf "]"
}
BEGIN {
    split("bytes store_containers store_images store_bytes", words, " ")
    for (i in words) is_number[words[i]] = 1
    split("removable partition blank half_made please_format", words, " ")
    for (i in words) is_flag[words[i]] = 1
    printf "{"
}
$0 == "[data]" { section = "data"; first = 1; printf "\"data\":{"; next }
$0 == "[problems]" { end_section(); section = "problems"; first = 1; printf ",\"problems\":["; next }
$0 == "[device]" {
    end_section()
    printf(devices++ ? "," : ",\"devices\":[")
    section = "device"; first = 1
    printf "{"
    next
}
{
    cut = index($0, "=")
    if (!cut) next
    key = substr($0, 1, cut - 1); value = substr($0, cut + 1)
    if (!first) printf ","
    first = 0
    if (section == "problems") printf "{\"code\":%s,\"text\":%s}", text(key), text(value)
    else if (key in is_flag) printf "%s:%s", text(key), value == "1" ? "true" : "false"
    else if (key in is_number && value ~ /^[0-9]+$/) printf "%s:%s", text(key), value
    else printf "%s:%s", text(key), text(value)
}
END {
    end_section()
    print devices ? "]}" : ",\"devices\":[]}"
}
