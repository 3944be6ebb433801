<?php
// Answers of a given status, with the headers that go with it.
http_response_code((int) $_GET['status']);
foreach ((array) ($_GET['header'] ?? []) as $header) {
    header($header, false);
}
if (isset($_GET['body'])) {
    echo $_GET['body'];
}
