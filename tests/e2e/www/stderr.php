<?php
// PHP's log line goes to FCGI_STDERR, which nginx writes into its error log.
error_log('first message for the log, ' . $_GET['token']);
echo "before ";
error_log('second message for the log, ' . $_GET['token']);
echo "after\n";
