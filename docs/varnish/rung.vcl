# Rung behind Varnish 7. docs/cdn.md says why. Yours to change: the origin's address.
vcl 4.1;

backend rung {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 2s;
    # Longer than Rung blocks a request (three target durations, of 6 s at most).
    .first_byte_timeout = 30s;
    .between_bytes_timeout = 10s;
}

sub vcl_recv {
    if (req.restarts > 0 && req.http.Rung-Url) {
        # The pass is good: now what was asked for.
        set req.url = req.http.Rung-Url;
        unset req.http.Rung-Url;
        return (hash);
    }
    unset req.http.Rung-Url;
    if (req.method != "GET" && req.method != "HEAD") {
        return (pass);
    }
    unset req.http.Rung-Token;
    if (req.url ~ "^/t/[^/]+/live/") {
        set req.http.Rung-Token = regsub(req.url, "^/t/([^/]+)/.*$", "\1");
        set req.url = regsub(req.url, "^/t/[^/]+", "");
    }
    # The multivariant playlist is each viewer's own where playback is signed.
    if (req.url !~ "^/live/" || req.url ~ "^/live/[^/]+/index\.m3u8") {
        return (pass);
    }
    unset req.http.Cookie;
    # Of the query only the delivery directives, in one order.
    set req.http.Rung-Query = "";
    if (req.url ~ "\.m3u8\?") {
        if (req.url ~ "[?&]_HLS_msn=") {
            set req.http.Rung-Query = req.http.Rung-Query + "&_HLS_msn=" + regsub(req.url, "^.*[?&]_HLS_msn=([^&]*).*$", "\1");
        }
        if (req.url ~ "[?&]_HLS_part=") {
            set req.http.Rung-Query = req.http.Rung-Query + "&_HLS_part=" + regsub(req.url, "^.*[?&]_HLS_part=([^&]*).*$", "\1");
        }
        if (req.url ~ "[?&]_HLS_skip=") {
            set req.http.Rung-Query = req.http.Rung-Query + "&_HLS_skip=" + regsub(req.url, "^.*[?&]_HLS_skip=([^&]*).*$", "\1");
        }
    }
    set req.url = regsub(req.url, "\?.*$", "") + regsub(req.http.Rung-Query, "^&", "?");
    unset req.http.Rung-Query;
    # Channels with signed playback: write true. Then nobody gets a cached byte whose pass the origin did not approve of within
    # the last half minute (it says how long, in Cache-Control): that is asked first, of the rendition (it may be too large for
    # the pass), else of the channel.
    if (false) {
        set req.http.Rung-Url = req.url;
        if (req.url ~ "^/live/[^/?]+/[^/?]+/[^/?]+/[^/?]+$") {
            set req.url = regsub(req.url, "^(/live/[^/?]+)/[^/?]+/([^/?]+)/.*$", "\1/\2/pass");
        } else if (req.url ~ "^/live/[^/?]+/[^/?.]+(\.iframes)?\.m3u8(\?|$)") {
            set req.url = regsub(req.url, "^(/live/[^/?]+)/([^/?.]+)\..*$", "\1/\2/pass");
        } else {
            set req.url = regsub(req.url, "^(/live/[^/?]+)/.*$", "\1/pass");
        }
    }
    return (hash);
}

sub vcl_hash {
    if (req.url ~ "^/live/[^/?]+(/[^/?]+)?/pass$") {
        hash_data(req.http.Rung-Token);
    }
}

sub vcl_deliver {
    if (req.http.Rung-Url && resp.status == 204) {
        return (restart);
    }
}

sub vcl_backend_fetch {
    # The origin sees the token; the key does not.
    if (bereq.http.Rung-Token) {
        set bereq.url = "/t/" + bereq.http.Rung-Token + bereq.url;
        unset bereq.http.Rung-Token;
    }
}

sub vcl_backend_response {
    # An old playlist is worse than none.
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    if (beresp.http.Cache-Control ~ "no-cache|no-store" || beresp.status >= 400) {
        # Not kept; for a moment those who wait for the same go on together instead of one behind the other.
        set beresp.uncacheable = true;
        set beresp.ttl = 500ms;
        return (deliver);
    }
}
